// Package feed tests that what is written past the driver is heard of by way of the write-ahead log, and that nothing is
// answered from the cache while it is not.
package feed
