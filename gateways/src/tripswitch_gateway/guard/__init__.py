"""tripswitch-guard, the small service that proxies ask before they let a call through; needs the extra `guard`."""
