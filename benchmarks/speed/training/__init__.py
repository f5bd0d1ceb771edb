"""`multigate bench train --page`: epochs from files beside the peers', the step beside its floor, loader, processes."""
