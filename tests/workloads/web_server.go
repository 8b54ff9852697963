// A web server: `web_server PORT FILE` answers every request with the file.
package main

import (
	"net/http"
	"os"
	"strconv"
)

func main() {
	page, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		answer.Header().Set("Content-Length", strconv.Itoa(len(page)))
		answer.Write(page)
	})
	panic(http.ListenAndServe(":"+os.Args[1], nil))
}
