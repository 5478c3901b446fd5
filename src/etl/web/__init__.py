"""The server's side of the HTTP contract: who may ask, what a request says, what is answered."""
