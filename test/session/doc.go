// Package session tests that an answer is right for the session and the transaction that ask: for their settings, their
// search_path, their temporary objects and what they have written themselves.
package session
