//! Routes of a Service port become messages and back, and bad ones are refused.
