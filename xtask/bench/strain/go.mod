module strain

go 1.25
