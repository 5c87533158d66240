"""Up to the guest: what it boots with, and how the host talks to its agent. The guest's side is C, in guest/."""
