from backbones.cli import main

raise SystemExit(main())
