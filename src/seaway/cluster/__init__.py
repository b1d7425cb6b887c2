"""Becoming and staying a cluster: certificates, tokens, joining, and the etcd process."""
