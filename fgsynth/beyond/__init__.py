"""Methods that neither paper has; nothing below or beside imports them."""
