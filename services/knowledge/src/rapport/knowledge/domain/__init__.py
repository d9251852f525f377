"""What may be said: articles, key messages and statements, and who has to agree to them."""
