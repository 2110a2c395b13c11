from douane.cli import main

raise SystemExit(main())
