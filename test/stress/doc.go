// Package stress tests with programs and histories that are made up at random; each prints its seed and how to run it again.
package stress
