"""For authors of plugins: what the interfaces promise, as tests to subclass. Needs the extra ``anarch[test]``."""
