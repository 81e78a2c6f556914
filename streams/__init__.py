"""The Faust apps, the offline replay and the command line."""
