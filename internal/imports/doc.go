// Package imports has no code. Its tests check which package of the project may
// import which, and which third-party module is whose; that the root does not
// grow; and that what pages and comments name is there.
package imports
