//! The broker: connect, verify the stream, publish, classify what it answers.
