"""From a network's name to packets: `plan` decides, `links` and `firewall` carry out."""
