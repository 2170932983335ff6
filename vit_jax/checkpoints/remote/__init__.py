"""Fetches files: over HTTP, from Google's storage, from Hugging Face."""
