"""The site's live page: what lies here, what is asked, what is done, and what left."""
