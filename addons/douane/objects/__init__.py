"""Who made what with a shared credential, and the law that nobody else reaches it."""
