"""From a finding to an action, written down with its reasons."""
