"""Alarms that may be asked for every night: ranks, bets on them, and what the bets have won."""
