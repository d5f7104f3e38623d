"""The pages of the app (Streamlit keeps the name `pages` for itself)."""
