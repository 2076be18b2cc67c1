"""What clients call: who they are, what they may do, and one implementation of each verb for every kind."""
