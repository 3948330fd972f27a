//go:build tools

// Package tools keeps grpc-go's own interop client and server in go.mod.
package tools

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
