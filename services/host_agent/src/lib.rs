//! host_agent.
