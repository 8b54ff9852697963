// A web server: `node web_server.js PORT FILE` answers every request with the file.
'use strict';

const fs = require('node:fs');
const http = require('node:http');

const [port, file] = process.argv.slice(2);
const page = fs.readFileSync(file);

http.createServer((request, response) => {
  response.setHeader('Content-Length', page.length);
  response.end(page);
}).listen(Number(port), '::');
