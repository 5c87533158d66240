"""A black-box suite for every VMM that speaks Firecracker's API."""
