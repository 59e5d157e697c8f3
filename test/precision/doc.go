// Package precision measures how many of the hits that are possible the driver has. A hit is possible where
// PostgreSQL's answer is the one that it gave the last time that the same text was asked with the same arguments:
// a cache that drops a result exactly when PostgreSQL would answer otherwise has them all. What the driver has
// less of, commits have thrown away without need.
package precision
