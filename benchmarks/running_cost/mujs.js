// Calls, floating point, objects, strings, regular expressions, sorting.
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
function spectral(n) {
  function A(i, j) { return 1 / ((i + j) * (i + j + 1) / 2 + i + 1); }
  var u = [], v, i, j, a, k;
  for (i = 0; i < n; ++i) u[i] = 1;
  for (k = 0; k < 3; ++k) {
    v = [];
    for (i = 0; i < n; ++i) { a = 0; for (j = 0; j < n; ++j) a += u[j] * A(i, j); v[i] = a; }
    u = v;
  }
  return u[0];
}
function Node(l, r) { this.left = l; this.right = r; }
Node.prototype.count = function () { return 1 + (this.left ? this.left.count() + this.right.count() : 0); };
function tree(d) { return d === 0 ? new Node(null, null) : new Node(tree(d - 1), tree(d - 1)); }
function strings(n) {
  var total = 0, parts = [], i, s;
  for (i = 0; i < n; ++i) {
    s = ('item ' + i + ':' + i * 1.5).toUpperCase();
    total += s.replace(/(\d)(\d)/g, '$2$1').length + s.indexOf('5') + s.split(':').length;
    parts.push(s.substring(2));
    if (parts.length === 100) { total += parts.join(',').length; parts = []; }
  }
  return total;
}
function sorting(n) {
  var t = [], x = 42, i;
  for (i = 0; i < n; ++i) { x = (x * 1103515 + 12345) % 2147483648; t[i] = x; }
  t.sort(function (a, b) { return a - b; });
  return t[0] + t[n - 1];
}
print(fib(23), spectral(80), tree(12).count(), strings(4000), sorting(8000),
      JSON.stringify(JSON.parse('{"a":[1,2,{"b":"c"}]}')));
