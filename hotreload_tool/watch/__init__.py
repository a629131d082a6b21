"""`scons hotpatch-watch` and `hotpatch watch`: one resident session that makes every save live (docs/watch.md)."""
