module weft.dev/e2e/hello

go 1.24
