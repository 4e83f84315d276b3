"""The network side: Flower's SuperLink, the TLS listener, and the request guard between them."""
