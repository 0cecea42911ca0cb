"""Every experiment under several seeds, and what they come to beside published figures and known limits."""
