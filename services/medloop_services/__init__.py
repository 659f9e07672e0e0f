"""medloop's services: the bus they run on, the seven of them, replay, and the command line."""
