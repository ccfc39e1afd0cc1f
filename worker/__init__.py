"""The worker that coalesces contact changes and delivers them."""
