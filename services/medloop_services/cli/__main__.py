"""`python -m medloop_services.cli`."""

from medloop_services.cli import main

main()
