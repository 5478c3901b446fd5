"""The client's side: lines of a changing file, their delivery, and how far it is."""
