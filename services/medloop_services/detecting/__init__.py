"""`medloop detect`: monitoring alone, on a recorded or a made stream, and how often its alarms are false."""
