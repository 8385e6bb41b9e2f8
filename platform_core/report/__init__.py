"""What people look at: the fleet page and the passport of a site."""
