from streamlit_app.cli import main

raise SystemExit(main())
