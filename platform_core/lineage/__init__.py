"""Why a thing is as it is, and how a patient is taken out of everything. See README.md."""
