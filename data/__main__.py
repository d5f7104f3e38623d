"""`python -m data VERB`: the photo verbs by themselves."""

from data.cli import main

raise SystemExit(main())
