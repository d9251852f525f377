"""What routing decides: how a message is assessed, who owns its case, what makes a crisis."""
