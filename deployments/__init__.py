"""How the flow gets onto machines: deployments, work pools and schedules. No logic."""
