"""A list is read page by page while it changes: nothing is shown twice, nothing is left out."""

import re
import urllib.request
from uuid import uuid4

from story import URL, a_product, admin, given, passed, then, when

given("seven products of one name and price")
name = f"Paged {uuid4().hex}"
body = {"name": name, "price": "1.00", "stock": 1}
made = {admin("POST", "/admin/products", body).body["id"] for _ in range(7)}
then(len(made) == 7, "seven, with ids of their own")

when("they are listed by price, two to a page, and another is added after each page")
seen, url = [], f"{URL}/products?q={name.replace(' ', '%20')}&sort_by=price&limit=2"
while url:
    with urllib.request.urlopen(url, timeout=30) as page:
        found = re.findall(r'"id":"([^"]+)"', page.read().decode())
        link = re.search(r"<([^>]+)>; rel=\"next\"", page.headers.get("Link") or "")
    seen += found
    url = link and (link[1] if link[1].startswith("http") else URL + link[1])
    a_product(1)
then(len(seen) == len(set(seen)), "no product is shown twice")
then(set(seen) == made, "all seven are shown")
passed()
