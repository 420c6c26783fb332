"""What stands between the socket and the routes: connections, other people's pages, prefixes, text in addresses."""
