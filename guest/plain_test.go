//go:build !race

package main

// noNewPrivileges is what guests of the tests are asked for.
const noNewPrivileges = true
