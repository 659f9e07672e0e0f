"""medloop's services: the bus they run on, the six of them, replay, and the command line."""
