"""The audit log: who has called what, where and with which result, in a file that shows tampering."""
