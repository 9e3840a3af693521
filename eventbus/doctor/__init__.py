"""``eventbus doctor``: facts of a running system, and checks of them."""
